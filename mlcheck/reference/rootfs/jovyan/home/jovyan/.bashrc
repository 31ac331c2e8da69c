# Interactive shells of jovyan's.
export PS1='\u@\h:\w\$ '
