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
    "exact/balance": (*BASICS, "test_families", "properties/test_families_sound"),
    "exact/balls": TOLERANCE,
    "exact/dyadic": ("test_exact_linalg", "test_exact_rational", "test_network"),
    "exact/enclosure": ENCLOSED,
    "exact/first_order": (*BASICS, "test_families", "properties/test_families_sound"),
    "exact/linalg": (*BASICS, "test_exact_linalg"),
    "exact/lp": (*BASICS, "test_exact_lp"),
    "exact/modular": (*BASICS, "test_exact_linalg", "test_exact_rational", "test_exact_softmax"),
    "exact/rational": (*BASICS, "test_exact_rational"),
    "exact/regions": ("test_smt_regions",),
    "exact/segments": (*BASICS, "test_families"),
    "exact/softmax": ("test_exact_softmax", *EXACT),
    "facts": ("test_facts", "test_kernel"),
    "kernel/algebraic_batch": ENCLOSED,
    "kernel/checker": (*KERNEL, CERTIFICATES),
    "kernel/counting": SECOND,
    "kernel/degree_three": ("test_degree_three",),
    "kernel/enclosed_batch": ENCLOSED,
    "kernel/enumeration": ("test_mutants_kernel", "test_enumeration"),
    "kernel/extra_rays": RAYS,
    "kernel/extra_rays_mod": RAYS,
    "kernel/family": SECOND,
    "kernel/lifting": (*KERNEL, "test_row_space", CERTIFICATES),
    "kernel/ray_candidates": RAYS,
    "kernel/reconstruction": ("test_mutants_kernel", *KERNEL),
    "kernel/residual": RESIDUAL,
    "kernel/residual_cover": RESIDUAL,
    "kernel/residual_hinge": RESIDUAL,
    "kernel/residual_parts": RESIDUAL,
    "kernel/residual_quadrics": RESIDUAL,
    "kernel/scale": BARE,
    "kernel/second_batch": (*SECOND, "test_kernel"),
    "kernel/tolerance": TOLERANCE,
    "kernel/tolerance_bounds": TOLERANCE,
    "kernel/tolerance_labels": TOLERANCE,
    "kernel/tolerance_near": TOLERANCE,
    "kernel/unrealisable": ("test_mutants_kernel", "test_kernel_unrealisable"),
    "smt/encode": ENCODER,
    "smt/losses": ENCODER,
    "smt/question": ENCODER,
    "smt/terms": ENCODER,
}
"""Module under exan_verify/ -> test files under tests/, quickest first."""
