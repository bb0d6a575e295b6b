"""Which modules are mutated, and which tests should notice."""

BASICS = ("exact/test_mutants",)
CERTIFICATES = "properties/test_certificates_check"
KERNEL = ("kernel/test_kernel", "kernel/test_forgeries")
SECOND = ("kernel/test_mutants", "decide/test_families")
RESIDUAL = ("kernel/test_mutants_residual", "kernel/test_residual")
BARE = ("kernel/test_mutants_scale", "decide/test_scale")
EXACT = ("kernel/test_kernel", "decide/test_lifting", "properties/test_exact_gradients")
RAYS = ("kernel/test_mutants_rays", "decide/test_enumeration_rays", "properties/test_planted_rays")
ENCLOSED = ("kernel/test_irrational",)
TOLERANCE = ("kernel/test_tolerance", "properties/test_tolerance_holds")
ENCODER = ("smt/test_mutants", "smt/test_terms", "smt/test_encode", "smt/test_exact", "smt/test_decide")

TARGETS: dict[str, tuple[str, ...]] = {
    "exact/algebraic": ENCLOSED,
    "exact/backprop": ("properties/test_exact_gradients", "kernel/test_kernel"),
    "kernel/second/cancellation": (*BASICS, "decide/test_families", "properties/test_families_sound"),
    "exact/balls": TOLERANCE,
    "exact/dyadic": ("exact/test_linalg", "exact/test_rational", "core/test_network"),
    "kernel/second/enclosure": ENCLOSED,
    "kernel/second/first_order": (*BASICS, "decide/test_families", "properties/test_families_sound"),
    "exact/elimination": ("exact/test_elimination",),
    "exact/stacked": ("exact/test_elimination",),
    "exact/linalg": (*BASICS, "exact/test_linalg"),
    "exact/lp": (*BASICS, "exact/test_lp"),
    "exact/modular": (*BASICS, "exact/test_linalg", "exact/test_rational", "exact/test_softmax"),
    "exact/rational": (*BASICS, "exact/test_rational"),
    "exact/regions": ("smt/test_regions",),
    "exact/softmax": ("exact/test_softmax", *EXACT),
    "core/facts": ("core/test_facts", "kernel/test_kernel"),
    "kernel/algebraic": (*ENCLOSED, "kernel/test_found"),
    "kernel/second/algebraic_batch": ENCLOSED,
    "kernel/checker": (*KERNEL, "kernel/test_unrealisable", CERTIFICATES),
    "kernel/second/counting": SECOND,
    "kernel/labels": (*RESIDUAL, *BARE, "kernel/test_kernel", "decide/test_enumeration_rays"),
    "kernel/probabilities": (*ENCLOSED, *RESIDUAL),
    "kernel/lifting/apart": ("decide/test_apart",),
    "kernel/lifting/degree_three": ("decide/test_degree_three",),
    "kernel/second/enclosed_batch": ENCLOSED,
    "kernel/lifting/enumeration": ("kernel/test_mutants", "decide/test_enumeration"),
    "kernel/lifting/extra_rays": RAYS,
    "kernel/lifting/extra_rays_mod": RAYS,
    "kernel/second/shear": SECOND,
    "kernel/second/first_layer": ("kernel/test_right_inverses", "decide/test_inwards"),
    "kernel/second/inwards": ("decide/test_inwards",),
    "kernel/second/second_layer": ("kernel/test_right_inverses", "decide/test_inwards"),
    "kernel/second/unseen": ("decide/test_unseen", "decide/test_inwards"),
    "kernel/lifting/degree_two": (*KERNEL, "decide/test_row_space", CERTIFICATES),
    "kernel/lifting/ray_candidates": RAYS,
    "kernel/gradient/reconstruction": ("kernel/test_mutants", *KERNEL),
    "kernel/gradient/found": ("kernel/test_found",),
    "kernel/cubes/alone": ("kernel/test_found", "decide/test_cubes"),
    "kernel/cubes/check": ("kernel/test_found", "decide/test_cubes"),
    "kernel/cubes/listing": ("decide/test_cubes", "kernel/test_found"),
    "kernel/cubes/members": ("kernel/test_found", "decide/test_cubes"),
    "kernel/cubes/relaxation": ("decide/test_cubes",),
    "kernel/residual/check": RESIDUAL,
    "kernel/residual/cover": RESIDUAL,
    "kernel/residual/hinge": RESIDUAL,
    "kernel/residual/inputs": ("decide/test_inputs",),
    "kernel/residual/parts": RESIDUAL,
    "kernel/residual/quadrics": RESIDUAL,
    "kernel/lifting/scale": BARE,
    "kernel/second/twins": BARE,
    "kernel/second/second_batch": (*SECOND, "kernel/test_kernel"),
    "kernel/tolerance/check": TOLERANCE,
    "kernel/tolerance/bounds": TOLERANCE,
    "kernel/tolerance/labels": TOLERANCE,
    "kernel/tolerance/near": TOLERANCE,
    "kernel/gradient/unrealisable": ("kernel/test_mutants", "kernel/test_unrealisable"),
    "smt/question/encode": ENCODER,
    "smt/question/encoder": ENCODER,
    "smt/question/losses": ENCODER,
    "smt/question/posed": ENCODER,
    "smt/question/terms": ENCODER,
}
"""Module under exan_verify/ -> test files under tests/, quickest first."""
