; s5-two-samples-counts-2-k3 (S5), expected: unsat
; For all logits F (2 x 3) of two samples with one-hot labels (0, 0), with e = f_2 - f_1: if e is not
; zero, only permutations that fix the labels solve Q^T (Q F - Y) = F - Y with Q 1 = 1 and Q
; invertible.
(set-info :status unsat)
(set-logic QF_NRA)
(declare-const a Real)
(declare-const b Real)
(declare-const f1_0 Real)
(declare-const f1_1 Real)
(declare-const f1_2 Real)
(declare-const f2_0 Real)
(declare-const f2_1 Real)
(declare-const f2_2 Real)
(assert (not (= (+ a b) 1.0)))
(assert (= (+ (* (- 1.0 a) (- (+ (* (- 1.0 a) f1_0) (* a f2_0)) 1.0)) (* b (- (+ (* b f1_0) (* (- 1.0 b) f2_0)) 1.0))) (- f1_0 1.0)))
(assert (= (+ (* a (- (+ (* (- 1.0 a) f1_0) (* a f2_0)) 1.0)) (* (- 1.0 b) (- (+ (* b f1_0) (* (- 1.0 b) f2_0)) 1.0))) (- f2_0 1.0)))
(assert (= (+ (* (- 1.0 a) (- (+ (* (- 1.0 a) f1_1) (* a f2_1)) 0.0)) (* b (- (+ (* b f1_1) (* (- 1.0 b) f2_1)) 0.0))) (- f1_1 0.0)))
(assert (= (+ (* a (- (+ (* (- 1.0 a) f1_1) (* a f2_1)) 0.0)) (* (- 1.0 b) (- (+ (* b f1_1) (* (- 1.0 b) f2_1)) 0.0))) (- f2_1 0.0)))
(assert (= (+ (* (- 1.0 a) (- (+ (* (- 1.0 a) f1_2) (* a f2_2)) 0.0)) (* b (- (+ (* b f1_2) (* (- 1.0 b) f2_2)) 0.0))) (- f1_2 0.0)))
(assert (= (+ (* a (- (+ (* (- 1.0 a) f1_2) (* a f2_2)) 0.0)) (* (- 1.0 b) (- (+ (* b f1_2) (* (- 1.0 b) f2_2)) 0.0))) (- f2_2 0.0)))
(assert (or (not (= (- f2_0 f1_0) 0)) (not (= (- f2_1 f1_1) 0)) (not (= (- f2_2 f1_2) 0))))
(assert (not (or (and (= a 0) (= b 0)) (and (= a 1.0) (= b 1.0)))))
(check-sat)
