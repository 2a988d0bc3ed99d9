"""Brief training of networks on images in memory, and storage of trained weights by key."""
