{
  description = "The name of flake-root";
  outputs = { self }: { flakeModule = { ... }: { }; };
}
