(* What every main theorem rests on: each must be closed under the global context. *)
From Exan Require Import linalg network derivative shared orbits exclusive lifting exact downward.
From Exan Require Import groups systems modular narrow dead cubic.
From Exan Require Import peeling published pairs.

Print Assumptions fwd_fwdp.
Print Assumptions grad_gradp.
Print Assumptions w1_gsum.
Print Assumptions b1_gsum.
Print Assumptions gsum_topp.
Print Assumptions gradp_derivative.
Print Assumptions gradient_is_derivative.
Print Assumptions mse_gradient.
Print Assumptions pattern_open.
Print Assumptions S0.
Print Assumptions S0_same_moment.
Print Assumptions S0_in_batch.
Print Assumptions S1.
Print Assumptions reflection.
Print Assumptions stabiliser_family.
Print Assumptions S1_ambiguous.
Print Assumptions S2.
Print Assumptions S2_same_logits.
Print Assumptions S2_alpha_sum_zero.
Print Assumptions S2_alpha_many.
Print Assumptions S2_v.
Print Assumptions E1.
Print Assumptions E1_layer.
Print Assumptions E2.
Print Assumptions E3.
Print Assumptions E4_stopping.
Print Assumptions E4_any_order.
Print Assumptions E4_reads.
Print Assumptions two_factorisations.
Print Assumptions factorisations.
Print Assumptions gradmxE.
Print Assumptions rank_gradmx.
Print Assumptions delta_in_column_space.
Print Assumptions card_mono.
Print Assumptions C1_candidates.
Print Assumptions C1.
Print Assumptions confined_plain.
Print Assumptions confined_next_layer.
Print Assumptions confined_sum_zero.
Print Assumptions full_column_rank.
Print Assumptions downward.
Print Assumptions C1_batch_first.
Print Assumptions C1_batch.
Print Assumptions apart_combination.
Print Assumptions apart_span.
Print Assumptions P1_layer.
Print Assumptions P1_batch_first.
Print Assumptions P1_batch.
Print Assumptions P2_two.
Print Assumptions card_pairs.
Print Assumptions C2_candidates.
Print Assumptions C2.
Print Assumptions C4.
Print Assumptions rank_mod.
Print Assumptions L3_candidates.
Print Assumptions L3.
Print Assumptions narrow_line.
Print Assumptions narrow_ambiguous.
Print Assumptions S3_dead.
Print Assumptions S3_batch.
Print Assumptions S3_silent.
Print Assumptions rank_mod_ge.

From Exan Require Import instances instances_ambiguous instances_algebra instances_published.

Print Assumptions A_unique.
Print Assumptions A_E1.
Print Assumptions A_factorisations.
Print Assumptions A_derivative.
Print Assumptions B_unique.
Print Assumptions B_no_exclusive_neuron.
Print Assumptions C_ambiguous.
Print Assumptions D_ambiguous.
Print Assumptions E_structure.
Print Assumptions E_singleton.
Print Assumptions F_all_solutions.
Print Assumptions G_rank.
Print Assumptions P_unique.
Print Assumptions down_step.
Print Assumptions explained_solves.
Print Assumptions explained_independent.
