"""What the data looks like: Arrow schemas, reason codes, the input contract, plans and commit records.

No Beam, torch, transformers or boto3 here.
"""
