"""Knowledge distillation: a student learns from outputs and features of its teacher.

The student is the spec of a network, a network, or a method that makes it from the teacher, such as a pruning. A pruned
student keeps its mask while it learns:

>>> import compedu as ce
>>> teacher, data = ce.load("lenet5", "digits")
>>> few = data.shortened(train=64, validation=32, test=32)
>>> method = ce.SoftTargetDistillation(student=ce.MagnitudePruning(sparsity=0.9), epochs=1)
>>> student = method(teacher, few)
>>> round((student.fc1.dense() == 0).float().mean().item(), 2)
0.9
"""
