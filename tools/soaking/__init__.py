"""What `make soak` is made of: an app (app.py), its clients (clients.py), what is looked at each second (look.py), the
verdict (verdict.py), and the run without faults (run.py) and with them (faulty.py).
"""
