"""How do we touch the world outside: files, tags, pictures, sidecars?"""
