"""Our account on a cloud: from the configuration, an eucarc, euca2ools, or a profile of the AWS tools."""
