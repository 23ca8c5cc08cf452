"""How is this kind of backup made and brought back?"""
