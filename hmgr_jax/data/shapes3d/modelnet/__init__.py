"""ModelNet as commonly shared (clouds in HDF5, rendered views, meshes), or prepared."""
