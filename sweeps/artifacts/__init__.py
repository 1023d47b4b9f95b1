"""Files of a run: its folder, checkpoints and adapters, and how they reach workers on other machines.

run_folder.py        whose folder it is; the resolved sweep file
trial_folder.py      reading a trial's folder back, and removing what is left over
worker_files.py      a worker's files: shared, sent to the driver, or in a store
file_server.py       the driver's side of files that are sent
checkpoint_store.py  checkpoints at a URL
"""
