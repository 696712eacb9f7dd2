"""ModelNet as people have it: clouds in HDF5, rendered views, meshes, or all of it prepared."""
