"""Images of masks: colours and names of classes."""
