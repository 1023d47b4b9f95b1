"""The keeper: alone writes to the study, hands out trials, and decides which go on.

keeper.py            the calls of workers and driver, each one transaction
actor.py             the keeper as a Ray actor; waits for a storage that is away
protocol.py          what keeper and workers send each other
trial_source.py      draws trials from the guideline tables and the sampler
replicate_source.py  the same for a confirm study
retry_queue.py       interrupted trials, and when one fails for losing its workers
recovery.py          trials that lost their worker: ended from their folders, or queued
recorder.py          writes reports and ends of trials
pruning.py           the stop decision
seats.py             which trial is on which seat
worker_registry.py   active workers, their speed, and starts in vain
start_failures.py    workers that cannot start
failed_trials.py     what a run says at its end about failed trials
"""
