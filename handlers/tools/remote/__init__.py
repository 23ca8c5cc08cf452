"""The hands for remote peers: commands by ssh, copies by rsync, sftp or an rcp, listings, marks."""
