"""Which modules are mutated, and which tests should notice."""

KERNEL = ("test_kernel", "test_kernel_forgeries")
RESIDUAL = ("test_residual_kernel",)
EXACT = ("test_kernel", "test_decide_lifting", "properties/test_exact_gradients")
ENCODER = ("test_smt_encode", "test_smt_terms", "test_smt_exact", "test_smt_decide")

TARGETS: dict[str, tuple[str, ...]] = {
    "exact/dyadic": ("test_exact_linalg", "test_exact_rational", "test_network"),
    "exact/rational": ("test_exact_rational",),
    "exact/modular": ("test_exact_linalg", "test_exact_softmax"),
    "exact/linalg": ("test_exact_linalg",),
    "exact/softmax": ("test_exact_softmax", *EXACT),
    "exact/backprop": ("properties/test_exact_gradients", "test_kernel"),
    "exact/lp": ("test_exact_lp",),
    "exact/balance": ("test_families", "test_exact_lp"),
    "exact/segments": ("test_families", "test_scale"),
    "exact/first_order": ("test_families",),
    "kernel/checker": KERNEL,
    "kernel/lifting": KERNEL,
    "kernel/degree_three": ("test_degree_three",),
    "kernel/enumeration": ("test_enumeration",),
    "kernel/scale": ("test_scale", *KERNEL),
    "kernel/second_batch": ("test_families", *KERNEL),
    "kernel/family": ("test_families",),
    "kernel/counting": ("test_families",),
    "kernel/reconstruction": KERNEL,
    "kernel/unrealisable": ("test_kernel_unrealisable",),
    "kernel/residual": RESIDUAL,
    "kernel/residual_parts": RESIDUAL,
    "kernel/residual_quadrics": RESIDUAL,
    "kernel/residual_hinge": RESIDUAL,
    "kernel/residual_cover": RESIDUAL,
    "smt/encode": ENCODER,
    "smt/losses": ENCODER,
    "smt/terms": ENCODER,
    "smt/question": ENCODER,
    "facts": ("test_facts", "test_kernel"),
}
"""Module under exan_verify/ -> test files under tests/, quickest first."""
