import java.net.Inet4Address;
import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Hashtable;
import javax.naming.Context;
import javax.naming.NamingException;
import javax.naming.directory.Attribute;
import javax.naming.directory.InitialDirContext;

/**
 * Looks names up as Java programs do: InetAddress for addresses, which asks the C library, and JNDI, which is a resolver of its own,
 * for SRV records. With the system property jndi=ADDRESS, JNDI is used for everything. See lookup.go for the arguments and for what
 * is printed.
 */
final class Lookup {
    public static void main(String[] args) throws Exception {
        look(args[0], args[1]);
        for (int i = 2; i < args.length; i++) {
            Thread.sleep(Long.parseLong(args[i]));
            System.out.println("again");
            look(args[0], args[1]);
        }
    }

    private static void look(String what, String name) {
        String server = System.getProperty("jndi");
        try {
            if (server != null) {
                records(server, what, name);
                return;
            }
            for (InetAddress a : InetAddress.getAllByName(name)) {
                if (what.equals("any") || what.equals("a") && a instanceof Inet4Address || what.equals("aaaa") && a instanceof Inet6Address) {
                    System.out.println(a.getHostAddress());
                }
            }
        } catch (UnknownHostException | NamingException e) {
            System.out.println("error " + e);
        }
    }

    private static void records(String server, String what, String name) throws NamingException {
        Hashtable<String, String> env = new Hashtable<>();
        env.put(Context.INITIAL_CONTEXT_FACTORY, "com.sun.jndi.dns.DnsContextFactory");
        env.put(Context.PROVIDER_URL, "dns://" + server);
        InitialDirContext context = new InitialDirContext(env);
        for (String type : what.equals("any") ? new String[] {"A", "AAAA"} : new String[] {what.toUpperCase()}) {
            Attribute records = context.getAttributes(name, new String[] {type}).get(type);
            for (int i = 0; records != null && i < records.size(); i++) {
                String[] words = records.get(i).toString().split(" ");
                System.out.println(type.equals("SRV") ? words[3] + ":" + words[2] : words[0]);
            }
        }
        context.close();
    }
}
