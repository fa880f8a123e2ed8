"""What both ends of a stream share and a .proto cannot say."""
