"""The public heart: certificates and predictions for images."""
