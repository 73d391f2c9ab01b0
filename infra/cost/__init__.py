"""What the system costs on Google Cloud: counted operations times prices that have a date."""
