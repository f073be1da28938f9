"""How does FFmpeg do the work, and on which cores?"""
