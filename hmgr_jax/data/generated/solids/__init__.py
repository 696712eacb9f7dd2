"""Generated solids of twelve classes: turned, cut from plates, stacked and pierced.

The data set of 3D objects that is always there, a function of seed, split and index.
"""

from hmgr_jax.data.generated.solids.solid import CLASSES, Solid, make_solid

__all__ = ["CLASSES", "Solid", "make_solid"]
