"""Commands of whoever runs the worker, around its life and around each job: `hook-start`, `hook-before-job`,
`hook-after-job`, `hook-stop`.

`told` says what they are and what they may know; `around` runs those of jobs in the keeper, which waits for them as it
does for jobs; `once` runs the first and the last one in the agent. A worker without hooks comes here only to find that
it has none.
"""
