"""DrayJobs: objects of a Kubernetes cluster that become jobs, and show what becomes of them.

    drayjob.py     what an object says; where its kind is found                              no I/O
    status.py      the record of a job → the object's .status                                no I/O
    decide.py      the one next thing to do about an object, given it and its job's record    no I/O
    controller.py  one pass over one object; which objects, and when
    queue.py       the objects that are due
    watch.py       kopf, which tells of objects as they change
    lease.py       one replica at a time
    mirror.py      objects that show jobs which came another way
    operator.py    all of it together: what `--kubernetes` runs

The engine knows nothing of them: an object becomes the same record that POST /jobs makes, under its uid as the job's id.
"""
