"""Compare methods: a plan of runs, trained one by one or several at a time, and a page of what they show."""
