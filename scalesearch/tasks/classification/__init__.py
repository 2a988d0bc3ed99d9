"""The task of image classification: which of N classes does the picture show?"""
