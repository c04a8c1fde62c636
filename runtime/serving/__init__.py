"""The same answers from a server: Triton's side and the client's."""
