"""What a network costs, sparse storage, and files."""
