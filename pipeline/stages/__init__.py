"""What is trained inside the backbone; a new stage is one file here.

base.py           what stages that live in some of the layers share
config.py         what a stage can be (no torch)
presets.py        list, houlsby, lora, prefix, mam, soft_prompt, ... by name
attach.py         puts the stages of a configuration into a backbone
unified.py        the unified family: form, place, insertion, composition
bottleneck.py     dh = f(x W_d) W_u, and three ways to put it beside a module
prefix.py         the prefix as a gated parallel change, and its multi-head relative
bitfit.py         every bias of its own
ptuning.py        pseudo tokens through a small encoder
prompt_start.py   what pseudo tokens start from: the template's words, another run's prompt
ipt.py            a prompt that moves in a subspace, and that subspace on disk
"""
