"""Image files, preprocessing and augmentation."""
