"""What was exported computes what it was made from: measured."""
