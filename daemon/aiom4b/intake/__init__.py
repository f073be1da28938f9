"""What was dropped into the source, and is it all there?"""
