"""The detection task: which objects are in the picture, and where?"""
