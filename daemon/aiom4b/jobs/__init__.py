"""What is to be done, what is being done, and what became of it?"""
