"""Which stages does a book pass?"""
