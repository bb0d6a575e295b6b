"""Which modules are mutated, and which tests should notice."""

BASICS = ("test_mutants_exact",)
CERTIFICATES = "properties/test_certificates_check"
KERNEL = ("test_kernel", "test_kernel_forgeries")
SECOND = ("test_mutants_kernel", "test_families")
RESIDUAL = ("test_mutants_residual", "test_residual_kernel")
BARE = ("test_mutants_scale", "test_scale")
EXACT = ("test_kernel", "test_decide_lifting", "properties/test_exact_gradients")
RAYS = ("test_enumeration_rays", "properties/test_planted_rays")
ENCLOSED = ("test_irrational",)
TOLERANCE = ("test_tolerance_kernel", "properties/test_tolerance_holds")
ENCODER = ("test_mutants_encoders", "test_smt_terms", "test_smt_encode", "test_smt_exact", "test_smt_decide")

TARGETS: dict[str, tuple[str, ...]] = {
    "exact/algebraic": ENCLOSED,
    "exact/backprop": ("properties/test_exact_gradients", "test_kernel"),
    "kernel/second/cancellation": (*BASICS, "test_families", "properties/test_families_sound"),
    "exact/balls": TOLERANCE,
    "exact/dyadic": ("test_exact_linalg", "test_exact_rational", "test_network"),
    "kernel/second/enclosure": ENCLOSED,
    "kernel/second/first_order": (*BASICS, "test_families", "properties/test_families_sound"),
    "exact/linalg": (*BASICS, "test_exact_linalg"),
    "exact/lp": (*BASICS, "test_exact_lp"),
    "exact/modular": (*BASICS, "test_exact_linalg", "test_exact_rational", "test_exact_softmax"),
    "exact/rational": (*BASICS, "test_exact_rational"),
    "exact/regions": ("test_smt_regions",),
    "exact/softmax": ("test_exact_softmax", *EXACT),
    "core/facts": ("test_facts", "test_kernel"),
    "kernel/second/algebraic_batch": ENCLOSED,
    "kernel/checker": (*KERNEL, CERTIFICATES),
    "kernel/second/counting": SECOND,
    "kernel/labels": (*RESIDUAL, *BARE, "test_kernel", "test_enumeration_rays"),
    "kernel/probabilities": (*ENCLOSED, *RESIDUAL),
    "kernel/lifting/degree_three": ("test_degree_three",),
    "kernel/second/enclosed_batch": ENCLOSED,
    "kernel/lifting/enumeration": ("test_mutants_kernel", "test_enumeration"),
    "kernel/lifting/extra_rays": RAYS,
    "kernel/lifting/extra_rays_mod": RAYS,
    "kernel/second/shear": SECOND,
    "kernel/second/unseen": ("test_unseen",),
    "kernel/lifting/degree_two": (*KERNEL, "test_row_space", CERTIFICATES),
    "kernel/lifting/ray_candidates": RAYS,
    "kernel/gradient/reconstruction": ("test_mutants_kernel", *KERNEL),
    "kernel/residual/check": RESIDUAL,
    "kernel/residual/cover": RESIDUAL,
    "kernel/residual/hinge": RESIDUAL,
    "kernel/residual/parts": RESIDUAL,
    "kernel/residual/quadrics": RESIDUAL,
    "kernel/lifting/scale": BARE,
    "kernel/second/second_batch": (*SECOND, "test_kernel"),
    "kernel/tolerance/check": TOLERANCE,
    "kernel/tolerance/bounds": TOLERANCE,
    "kernel/tolerance/labels": TOLERANCE,
    "kernel/tolerance/near": TOLERANCE,
    "kernel/gradient/unrealisable": ("test_mutants_kernel", "test_kernel_unrealisable"),
    "smt/question/encode": ENCODER,
    "smt/question/encoder": ENCODER,
    "smt/question/losses": ENCODER,
    "smt/question/posed": ENCODER,
    "smt/question/terms": ENCODER,
}
"""Module under exan_verify/ -> test files under tests/, quickest first."""
