"""A region of a volume -> handcrafted features: shape, grey levels and texture, by flash-radiomics.

What a feature is, is what flash-radiomics says, with the names of PyRadiomics:

- Grey levels are discretised anew in each region and each image. Bins of a fixed width begin at a
  multiple of that width at or below the darkest voxel, where IBSI has them begin at the darkest
  voxel itself; a fixed number of bins parts the range from darkest to brightest evenly.
- Grey levels co-occur both ways, in neighbours at distance 1. GLCM and GLRLM features are means
  over directions: 13 in space (IBSI: 3D averaged), or 4 within the slices, where the matrix of a
  direction holds all slices (IBSI: 2.5D direction-merged). GLSZM, GLDM and NGTDM are 3D or 2.5D.
- GLDM is IBSI's NGLDM with a coarseness of 0.
- Kurtosis is 0 for normally distributed values, as in IBSI; PyRadiomics' own is 3 there.
- Lengths of axes are those of PyRadiomics: IBSI's are longer by sqrt(n / (n - 1)) for n voxels.
- The Laplacian of Gaussian is ITK's as in PyRadiomics: in three dimensions, its width in mm, and
  multiplied by that width squared. A bright blob answers negatively. IBSI 2 does not multiply.
  flash-radiomics' own extractor is not used: where texture is sought within slices, it filters
  within them as well, and does not multiply.

Another library, another release of it or another configuration gives other numbers under the same
names. So each vector says where it comes from, `require_same` keeps them apart, and a bundle runs
only where they are measured as they were in training (worker/region_ensemble.py).

config      which features, and how: part of a bundle
vector      the features of one region, and what they were computed with
extraction  voxels and a mask in, a vector out: the only code that knows the library
specimen    fixed voxels, by whose features two installations are told alike

tests/worker/test_radiomics_ibsi.py holds the features to IBSI's digital phantom.
"""
