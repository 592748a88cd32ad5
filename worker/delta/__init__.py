"""How a network's output changes when boxes of its input are blanked, without running it again.

A 3D DenseNet is a chain of convolutions, which are linear, and of ReLUs, which are not. Blank a
small box of the input, and every linear layer maps the *change* of its input to the change of its
output: no biases, nothing of the rest of the volume, and outside of a box that grows by a voxel or
so per layer the change is exactly 0. Only the ReLUs have to know what was there before, and they
look it up in maps that are computed once per volume. So one position costs a ninth of a forward
pass at 240 x 260 x 260, and is exact. docs/occlusion.md explains it at leisure.

    engine = DeltaEngine(network, volume)       # one forward pass, keeps its maps
    engine.deltas([((24, 36), (26, 39), (26, 39))])

folding     the network as linear parts and the scales and shifts between them
baseline    its maps for one volume
boxes       which voxels a change can have reached, and where they lie in flattened maps
engine      the change, carried from the input to the output

Needs PyTorch and MONAI only, and nothing of monro.
"""
