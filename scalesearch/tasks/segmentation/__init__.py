"""The task of semantic segmentation: which of N classes does each pixel of the picture show?"""
