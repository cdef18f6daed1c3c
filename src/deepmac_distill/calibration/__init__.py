"""How good each mask is: a calibrated IoU and a lower bound, learned from classes hidden from a teacher."""
