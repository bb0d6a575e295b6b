; p2-zero-pre-activation (P2), expected: unsat
; ReluNetwork(2-2-1): no second batch has this gradient. UNIQUE, certified by cubes; and by z3 (every
; activation pattern unsatisfiable)
(set-info :status unsat)
(set-logic QF_NRA)
; Which batches of 2 samples have the given gradient?
; Network 2-2-1, loss mse, reduction mean, labels one_hot.
; on_s<m>_l<i>_n<j>: neuron j of hidden layer i is active for sample m; x_s<m>_<i>: its input i.
; sat: there is another batch with this gradient; its inputs are a model's x.
; unsat: there is no such batch beside the known one.
(declare-fun x_s0_0 () Real)
(declare-fun x_s0_1 () Real)
(declare-fun h_s0_l1_n0 () Real)
(declare-fun h_s0_l1_n1 () Real)
(declare-fun is_s0_0 () Real)
(declare-fun is_s0_1 () Real)
(declare-fun x_s1_0 () Real)
(declare-fun x_s1_1 () Real)
(declare-fun h_s1_l1_n0 () Real)
(declare-fun h_s1_l1_n1 () Real)
(declare-fun is_s1_0 () Real)
(declare-fun is_s1_1 () Real)
(declare-fun delta_s0_l1_n0 () Real)
(declare-fun delta_s0_l1_n1 () Real)
(declare-fun delta_s1_l1_n0 () Real)
(declare-fun delta_s1_l1_n1 () Real)
(declare-fun on_s0_l1_n0 () Bool)
(declare-fun on_s0_l1_n1 () Bool)
(declare-fun label_s0_0 () Bool)
(declare-fun label_s0_1 () Bool)
(declare-fun on_s1_l1_n0 () Bool)
(declare-fun on_s1_l1_n1 () Bool)
(declare-fun label_s1_0 () Bool)
(declare-fun label_s1_1 () Bool)
; sample 0, hidden layer 1, neuron 0
(assert (or (not on_s0_l1_n0) (< (* (- 1.0) x_s0_0) 0.0)))
(assert (or on_s0_l1_n0 (<= x_s0_0 0.0)))
(assert (or (not on_s0_l1_n0) (= (+ h_s0_l1_n0 (* (- 1.0) x_s0_0)) 0.0)))
(assert (or on_s0_l1_n0 (= h_s0_l1_n0 0.0)))
; sample 0, hidden layer 1, neuron 1
(assert (or (not on_s0_l1_n1) (< (* (- 1.0) x_s0_1) 0.0)))
(assert (or on_s0_l1_n1 (<= x_s0_1 0.0)))
(assert (or (not on_s0_l1_n1) (= (+ h_s0_l1_n1 (* (- 1.0) x_s0_1)) 0.0)))
(assert (or on_s0_l1_n1 (= h_s0_l1_n1 0.0)))
; sample 0: exactly one label
(assert (or label_s0_0 label_s0_1))
(assert (or (not label_s0_1) (not label_s0_0)))
; sample 0: label 0
(assert (or (not label_s0_0) (= (+ is_s0_0 (- 1.0)) 0.0)))
(assert (or label_s0_0 (= is_s0_0 0.0)))
; sample 0: label 1
(assert (or (not label_s0_1) (= (+ is_s0_1 (- 1.0)) 0.0)))
(assert (or label_s0_1 (= is_s0_1 0.0)))
; sample 1, hidden layer 1, neuron 0
(assert (or (not on_s1_l1_n0) (< (* (- 1.0) x_s1_0) 0.0)))
(assert (or on_s1_l1_n0 (<= x_s1_0 0.0)))
(assert (or (not on_s1_l1_n0) (= (+ h_s1_l1_n0 (* (- 1.0) x_s1_0)) 0.0)))
(assert (or on_s1_l1_n0 (= h_s1_l1_n0 0.0)))
; sample 1, hidden layer 1, neuron 1
(assert (or (not on_s1_l1_n1) (< (* (- 1.0) x_s1_1) 0.0)))
(assert (or on_s1_l1_n1 (<= x_s1_1 0.0)))
(assert (or (not on_s1_l1_n1) (= (+ h_s1_l1_n1 (* (- 1.0) x_s1_1)) 0.0)))
(assert (or on_s1_l1_n1 (= h_s1_l1_n1 0.0)))
; sample 1: exactly one label
(assert (or label_s1_0 label_s1_1))
(assert (or (not label_s1_1) (not label_s1_0)))
; sample 1: label 0
(assert (or (not label_s1_0) (= (+ is_s1_0 (- 1.0)) 0.0)))
(assert (or label_s1_0 (= is_s1_0 0.0)))
; sample 1: label 1
(assert (or (not label_s1_1) (= (+ is_s1_1 (- 1.0)) 0.0)))
(assert (or label_s1_1 (= is_s1_1 0.0)))
; sample 0, backward
(assert (or (not on_s0_l1_n0) (= (+ delta_s0_l1_n0 (* (- 1.0) h_s0_l1_n0) (* (- 1.0) h_s0_l1_n1) is_s0_1) 0.0)))
(assert (or on_s0_l1_n0 (= delta_s0_l1_n0 0.0)))
(assert (or (not on_s0_l1_n1) (= (+ delta_s0_l1_n1 (* (- 1.0) h_s0_l1_n0) (* (- 1.0) h_s0_l1_n1) is_s0_1) 0.0)))
(assert (or on_s0_l1_n1 (= delta_s0_l1_n1 0.0)))
; sample 1, backward
(assert (or (not on_s1_l1_n0) (= (+ delta_s1_l1_n0 (* (- 1.0) h_s1_l1_n0) (* (- 1.0) h_s1_l1_n1) is_s1_1) 0.0)))
(assert (or on_s1_l1_n0 (= delta_s1_l1_n0 0.0)))
(assert (or (not on_s1_l1_n1) (= (+ delta_s1_l1_n1 (* (- 1.0) h_s1_l1_n0) (* (- 1.0) h_s1_l1_n1) is_s1_1) 0.0)))
(assert (or on_s1_l1_n1 (= delta_s1_l1_n1 0.0)))
; gradient: 0.weight[0,0]
(assert (= (+ (* delta_s0_l1_n0 x_s0_0) (* delta_s1_l1_n0 x_s1_0) (- 5.0)) 0.0))
; gradient: 0.weight[0,1]
(assert (= (+ (* delta_s0_l1_n0 x_s0_1) (* delta_s1_l1_n0 x_s1_1)) 0.0))
; gradient: 0.bias[0]
(assert (= (+ delta_s0_l1_n0 delta_s1_l1_n0 (- 3.0)) 0.0))
; gradient: 0.weight[1,0]
(assert (= (+ (* delta_s0_l1_n1 x_s0_0) (* delta_s1_l1_n1 x_s1_0)) 0.0))
; gradient: 0.weight[1,1]
(assert (= (+ (* delta_s0_l1_n1 x_s0_1) (* delta_s1_l1_n1 x_s1_1)) 0.0))
; gradient: 0.bias[1]
(assert (= (+ delta_s0_l1_n1 delta_s1_l1_n1) 0.0))
; gradient: 2.weight[0,0]
(assert (= (+ (* h_s0_l1_n0 h_s0_l1_n0) (* h_s0_l1_n0 h_s0_l1_n1) (* (- 1.0) h_s0_l1_n0 is_s0_1) (* h_s1_l1_n0 h_s1_l1_n0) (* h_s1_l1_n0 h_s1_l1_n1) (* (- 1.0) h_s1_l1_n0 is_s1_1) (- 5.0)) 0.0))
; gradient: 2.weight[0,1]
(assert (= (+ (* h_s0_l1_n0 h_s0_l1_n1) (* h_s0_l1_n1 h_s0_l1_n1) (* (- 1.0) h_s0_l1_n1 is_s0_1) (* h_s1_l1_n0 h_s1_l1_n1) (* h_s1_l1_n1 h_s1_l1_n1) (* (- 1.0) h_s1_l1_n1 is_s1_1)) 0.0))
; gradient: 2.bias[0]
(assert (= (+ h_s0_l1_n0 h_s0_l1_n1 h_s1_l1_n0 h_s1_l1_n1 (* (- 1.0) is_s0_1) (* (- 1.0) is_s1_1) (- 3.0)) 0.0))
; order of the samples, which does not matter
(assert (and (or (not on_s0_l1_n0) on_s1_l1_n0) (or (and (not on_s0_l1_n0) on_s1_l1_n0) (and (or (not on_s0_l1_n1) on_s1_l1_n1) (or (and (not on_s0_l1_n1) on_s1_l1_n1) (and (or (not label_s0_0) label_s1_0) (or (and (not label_s0_0) label_s1_0) (and (or (not label_s0_1) label_s1_1) (or (and (not label_s0_1) label_s1_1) (<= (+ x_s0_0 (* (- 1.0) x_s1_0)) 0.0))))))))))
; not the known batch, in any order of its samples
(assert (or (not (= (+ x_s0_0 (- 1.0)) 0.0)) (not (= x_s0_1 0.0)) (not label_s0_0) (not (= (+ x_s1_0 (- 2.0)) 0.0)) (not (= x_s1_1 0.0)) (not label_s1_0)))
(assert (or (not (= (+ x_s0_0 (- 2.0)) 0.0)) (not (= x_s0_1 0.0)) (not label_s0_0) (not (= (+ x_s1_0 (- 1.0)) 0.0)) (not (= x_s1_1 0.0)) (not label_s1_0)))
(check-sat)
