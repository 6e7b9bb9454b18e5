"""What programs run on: chips, their memory, meshes of them, and how programs are compiled."""
