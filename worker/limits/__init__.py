"""What a job may use at most, enforced: memory, processes, open files, cores.

`groups` are the kernel's own (cgroup version 1 or 2, where we may write); `watch` adds up what a job's processes hold,
where there are none; `cores` shares out processors; `limiter` is what the keeper calls. A job that asks for none of it
never comes here.
"""
