# The banner, for login shells that a person sits at.
case $- in
    *i*) . /printme.sh ;;
esac
