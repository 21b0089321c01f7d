"""What hosts keep on their disks: copies, checks of it, quotas, and logs in a directory of their own."""
