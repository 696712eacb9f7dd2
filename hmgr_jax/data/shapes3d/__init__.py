"""3D objects: triangle meshes, what networks read of them, and pictures of them."""
