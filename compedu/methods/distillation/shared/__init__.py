"""What the methods of distillation share: students, features of named layers, the base of all of them."""
