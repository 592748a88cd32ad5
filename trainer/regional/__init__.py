"""Training of networks that look at regions: nested cross-validation, the paper's table, a bundle.

cohort       regions of each exam as the networks see them
selection    handcrafted features, chosen within training folds
learner      one network of crops, trained slice by slice
patientwise  from slices to patients
nested       one outer fold: inner folds choose, the outer one judges
run          all models, regions and folds on disk
operating    what thresholds do, on regions as drawn and as proposed
findings     which features tell most
claims       whether what the paper says holds
table        what the paper's table says of them
export       the bundle that the worker runs
"""
