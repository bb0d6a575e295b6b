"""Files for Coq whose theorem is one certificate's claim, for the library in proofs/coq."""
